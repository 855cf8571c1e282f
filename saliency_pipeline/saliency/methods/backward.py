"""Modified backward passes: methods that pull a logit back to the pixels by rules of their own for some operators."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.rules.guided import Guided
from saliency_pipeline.saliency.engine.rules.relevance import Relevance
from saliency_pipeline.saliency.engine.rules.rescale import Rescale
from saliency_pipeline.saliency.methods.cam import GradCam
from saliency_pipeline.saliency.methods.gradient import simonyan
from saliency_pipeline.saliency.methods.method import Grids, LayerMethod, Method
from saliency_pipeline.saliency.methods.path import BASELINES, baseline_frames, sum_residuals
from saliency_pipeline.settings import setting

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers
    from saliency_pipeline.saliency.engine.pull_back import PulledBack


@dataclass(frozen=True)
class GuidedBackprop(Method):
    """Gradient of the logit, of which each ReLU passes on only what is positive: max_c |s_c|, (N, T, S, S), >= 0.

    With rule=guided a ReLU also blocks what it blocked in the forward pass (Springenberg et al., arXiv 1412.6806), with
    rule=deconvnet it does not (Zeiler and Fergus, arXiv 1311.2901). ReLU6 is a ReLU that blocks above 6 as well.
    Networks with other activations (SiLU, GELU, hard swish) are refused; sigmoid gates have their gradient. Largest
    absolute value over the colors of captum's GuidedBackprop and Deconvolution, which change only modules of the class
    nn.ReLU. Both resemble an edge detector and hardly depend on the weights (Adebayo et al., arXiv 1810.03292).
    """

    name = "guided-backprop"
    needs = Need.BACKWARD
    convention = "max_c |s_c|, s the gradient of which each ReLU passes on only what is positive; in fp32"
    paper = "arXiv:1412.6806"

    rule: str = setting("guided", "What ReLU passes on.", choices=("guided", "deconvnet"))

    @property
    def cost(self) -> float:
        return 3.0

    @property
    def table(self) -> Guided:
        return Guided(self.rule)

    def maps(self, ask: Answers) -> Tensor:
        return torch.stack([simonyan(signal) for signal in ask.pulled_back(self.table).signals], 1)


@dataclass(frozen=True)
class GuidedGradCam(LayerMethod):
    """Guided backpropagation times Grad-CAM: max_c |s_c| up(L), (N, T, S, S), >= 0.

    s is that of guided-backprop, L the Grad-CAM of the explained layer and up bilinear interpolation to the frame.
    Selvaraju et al., arXiv 1610.02391, section 3.3; the largest absolute value over the colors of captum's
    GuidedGradCam with `interpolate_mode="bilinear"`. Details are those of guided-backprop, which hardly depend on the
    weights.
    """

    name = "guided-gradcam"
    needs = Need.BACKWARD | GradCam.needs
    convention = "max_c |s_c| up(Grad-CAM), s of guided-backprop in fp32, up bilinear"
    paper = "arXiv:1610.02391"

    @property
    def cost(self) -> float:
        return 4.0

    @property
    def table(self) -> Guided:
        return Guided()

    def shape(self, grids: Grids, size: int) -> tuple[int, int]:
        return size, size

    def maps(self, ask: Answers) -> Tensor:
        details = torch.stack([simonyan(signal) for signal in ask.pulled_back(self.table).signals], 1)
        coarse = GradCam(layer=self.layer).maps(ask)
        return details * torch.nn.functional.interpolate(coarse, (ask.size, ask.size), mode="bilinear")


@dataclass(frozen=True)
class DeepLift(Method):
    """DeepLIFT with the Rescale rule: sum_c (x - x0)_c m_c, (N, T, S, S), signed.

    The multipliers m are pulled back like a gradient, but a function of one number has (f(x) - f(x0)) / (x - x0) in
    place of its derivative, max pooling and products of two signals have rules of their own, so that a map sums to
    y(x) - y(x0); the difference is stored as residual. This holds for ReLU6, SiLU, GELU and gates as well; networks
    with attention or normalization layers other than BatchNorm are refused. Baselines x0 as in integrated-gradients.
    Shrikumar et al., arXiv 1704.02685; the sum over the colors of captum's DeepLift.
    """

    name = "deeplift"
    needs = Need.BACKWARD
    convention = "sum_c (x - x0)_c m_c, m the multipliers of the Rescale rule, x0 the baseline; in fp32"
    paper = "arXiv:1704.02685"
    signed = True
    complete = True

    baseline: str = setting("mean", "Frame that is compared with.", choices=BASELINES)

    @property
    def cost(self) -> float:
        return 9.0

    @property
    def table(self) -> Rescale:
        return Rescale(self.baseline)

    def maps(self, ask: Answers) -> Tensor:
        difference = ask.pixels() - baseline_frames(ask, self.baseline)
        return torch.stack([(difference * signal).sum(1) for signal in self._result(ask).signals], 1)

    def residuals(self, ask: Answers, maps: Tensor) -> Tensor:
        result = self._result(ask)
        assert result.baseline_scores is not None
        return sum_residuals(maps, result.scores, result.baseline_scores)

    def _result(self, ask: Answers) -> PulledBack:
        return ask.pulled_back(self.table, lambda: baseline_frames(ask, self.baseline))


@dataclass(frozen=True)
class Lrp(Method):
    """Layer-wise relevance propagation: sum_c R_c, (N, T, S, S), signed.

    The logit is divided among the inputs of each operator in proportion to what they contribute. The first layer has
    the flat rule, convolutions z-plus and dense layers epsilon (epsilon-plus-flat), or these have the box, gamma and
    epsilon rule (epsilon-gamma-box); epsilon is 1e-6, gamma 0.25, the box that of pixels from black to white.
    Activations, SiLU and GELU among them, pass relevance on; of a signal and its gate the signal has all. BatchNorm is
    part of the convolution before it. A map sums to the logit but for what biases contribute, which is stored as
    residual. Networks with attention or normalization layers other than BatchNorm are refused.

    Bach et al., doi:10.1371/journal.pone.0130140. The method is patented (EP 3271863, US 12061966).
    """

    name = "lrp"
    needs = Need.BACKWARD
    convention = "sum_c R_c of layer-wise relevance propagation, R = y at the logit, BatchNorm folded; in fp32"
    paper = "doi:10.1371/journal.pone.0130140"
    signed = True
    complete = True

    rule: str = setting(
        "epsilon-plus-flat",
        "Rules of dense layers, convolutions and the first layer.",
        choices=("epsilon-plus-flat", "epsilon-gamma-box"),
    )

    @property
    def cost(self) -> float:
        return 8.0 if self.rule == "epsilon-plus-flat" else 15.0

    @property
    def table(self) -> Relevance:
        return Relevance(self.rule)

    def maps(self, ask: Answers) -> Tensor:
        result = self._result(ask)
        return torch.stack([s.sum(1) for s in result.signals], 1) * result.scores[:, :, None, None]

    def residuals(self, ask: Answers, maps: Tensor) -> Tensor:
        scores = self._result(ask).scores
        return sum_residuals(maps, scores, torch.zeros_like(scores))

    def _result(self, ask: Answers) -> PulledBack:
        low, high = (tuple(ask.color(value).flatten().tolist()) for value in (0.0, 1.0))
        return ask.pulled_back(dataclasses.replace(self.table, low=low, high=high))
