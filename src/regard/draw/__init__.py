"""Every picture's tools: tensors in, pictures out."""
