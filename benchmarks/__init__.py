"""How fast an answer comes, next to llama.cpp's own tools on the same model and machine."""
