"""Other libraries' names of tensors: one file of tables a source. `known.py` lists them and recognises their files."""
