"""How contenders take turns."""
