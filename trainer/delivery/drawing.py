"""What all our pictures share: matplotlib without a screen, and its colors."""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

INK, BEFORE, AFTER, GRID = "#22303c", "#9fb3c8", "#1f6fb2", "#e3e8ee"
plt.rcParams.update(dict.fromkeys(("axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK))
plt.rcParams.update({"axes.edgecolor": GRID, "font.size": 10, "axes.axisbelow": True, "text.parse_math": False})  # labels may hold $
