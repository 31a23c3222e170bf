"""The instruments in anyone's PyTorch loop: ``playground.watch``; see docs/watch.md."""
