"""How any experiment runs; knows neither paper."""
