"""A model as an ONNX graph, checked against the original."""
