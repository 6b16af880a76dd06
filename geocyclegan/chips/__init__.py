"""Chips: windows of scenes cut for training, and the one reader that training sees them through.

A chip folder holds `train_a/`, `val_a/`, `train_b/` and `val_b/` (GeoTIFFs), `domain_a.json` and
`domain_b.json` (bands, radiometry, scenes) and `chips.parquet`, which lists every chip and is
written last: what it does not list is not part of the set. Nothing here needs torch.
"""
