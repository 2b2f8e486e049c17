"""The coherent cache: what a node keeps of string keys to read at local speed."""
