"""Commands of `adaptd` that are more than a line, one file each; `daemon.__main__` names them."""
