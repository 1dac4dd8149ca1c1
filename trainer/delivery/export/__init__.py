"""Export a model as an ONNX graph and compare it with the original."""
