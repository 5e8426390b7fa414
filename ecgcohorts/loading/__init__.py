"""Load planned batches, and hand them to a framework. An adapter is imported only by a program that asks for it."""
