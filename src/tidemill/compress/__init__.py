"""Makes a trained ONNX model smaller or faster and measures what that cost; runs in the command line's process."""
