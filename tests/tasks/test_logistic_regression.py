"""The head that is solved: scikit-learn's minimum, from few and many images."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from regard.tasks.features.logistic_regression import logistic_regression


@pytest.mark.parametrize(("images", "penalty"), [(30, 1.0), (400, 1.0), (400, 20.0)])
def test_it_is_scikit_learns(images, penalty):
    """Features of different sizes, far from zero, and five classes that overlap: the same probabilities."""
    torch.manual_seed(0)
    labels = torch.arange(images) % 5
    scale = torch.linspace(0.2, 2, 17)
    features = (torch.randn(images, 17) + torch.randn(5, 17)[labels]) * scale + 3
    weight, bias = logistic_regression(features, labels, 5, penalty=penalty)
    theirs = LogisticRegression(C=1 / penalty, max_iter=5000, tol=1e-8).fit(features.numpy(), labels.numpy())
    found = (features @ weight.T + bias).softmax(1)
    torch.testing.assert_close(found, torch.tensor(theirs.predict_proba(features.numpy())).float(), rtol=0, atol=1e-2)
