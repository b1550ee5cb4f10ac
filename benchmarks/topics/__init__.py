"""What a message to many costs: wssup's topics over two workers, beside peers in one process.

``python -m benchmarks.topics --help`` says how to measure less of it.
"""
