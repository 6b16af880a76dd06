"""Models in the formats of others: ONNX, torch.export programs, what Deepness reads, STAC MLM."""
