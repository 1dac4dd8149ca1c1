"""Results leave the run: card, report, predictions, server, ONNX, Hub."""
