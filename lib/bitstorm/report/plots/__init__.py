"""The pictures: frames and plain values in, Matplotlib figures out. They import Matplotlib."""
