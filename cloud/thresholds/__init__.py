"""Forecasts of settings: the last week replayed under others. Without store and clock."""
