"""
Why one image is misread
========================

For the test image that a network reads worst: the training images that help, and those that harm.
"""

# %%
import torch
from sklearn.datasets import load_digits
from torch import nn

import whence as wh
from whence import plots

digits = load_digits()
x = torch.tensor(digits.images / 16, dtype=torch.float32)
y = torch.tensor(digits.target)
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
training, test = order[:1000], order[1000:]

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(250):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x[training]), y[training]).backward()
    optimizer.step()

# %%
# The last layer alone: it sees what all layers before it make of an image, and is exact at once.
influence = wh.Influence(
    model, (x[training], y[training]), nn.CrossEntropyLoss(), parameters=model[-1]
)
losses = nn.functional.cross_entropy(model(x[test]), y[test], reduction="none")
worst = test[losses.argmax()]
read = int(model(x[worst][None]).argmax())
print(f"a {int(y[worst])} that is read as {read}")

row = influence.attribute(wh.Loss(x[worst][None], y[worst][None])).isel(target=0)
plots.extreme_images(row, x[training], target_image=x[worst])

# %%
# By label: images of the same digit help, those of the digit it was taken for harm.
plots.influence_histograms(row)
