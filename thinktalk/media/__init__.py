"""MEDIA IN: files, bytes and arrays to tensors on one timeline."""
