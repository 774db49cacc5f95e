"""The package that knows Flask: the chest, its settings, and the requests that it sees."""
