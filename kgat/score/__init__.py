r"""What a score is: scalar functions, the rules made of them, and the lazy Gram matrix."""
