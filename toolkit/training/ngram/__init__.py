"""Fit the n-gram student: features and ridge regression, the search of linear models, and the mixture of them."""
