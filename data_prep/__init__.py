"""Recipes: public data sets and products, as downloaded, into chips of two domains.

Each recipe is a module to run: `python -m data_prep.sen12ms FOLDER --dry-run`. It finds what lies
in the folder, lists it, says what is missing, and hands the scenes to `geocyclegan.chips`.
"""
