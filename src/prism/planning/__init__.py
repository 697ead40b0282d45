"""What a recipe needs on given hardware before it is run: memory, work, time and money.

Formulas only. `benchmarks/plan_check.py` compares them with measured steps.
"""
