"""The papers behind the methods, as a model card cites them."""

from __future__ import annotations

from collections.abc import Mapping

METHODS: Mapping[str, str] = {
    "layer_swap": "Shin and Hwang: Layer-wise Swapping for Generalizable Multilingual Safety. EACL 2026. "
    "https://arxiv.org/abs/2601.22620",
    "sparse_edit": "Liang, Wang and Wang: Multilingual Safety Alignment Via Sparse Weight Editing. ICML 2026. "
    "https://arxiv.org/abs/2602.22554",
    "head_steering": "Banerjee, Layek, Chatterjee, Mukherjee and Hazra: Soteria: Language-Specific Functional "
    "Parameter Steering for Multilingual Safety Alignment. Findings of EMNLP 2025. https://arxiv.org/abs/2502.11244",
    "band_swap": "Bandarkar, Muller, Yuvraj, Hou, Singhal, Lv and Liu: Layer Swapping for Zero-Shot Cross-Lingual "
    "Transfer in Large Language Models. ICLR 2025. https://arxiv.org/abs/2410.01335",
    "soup": "Wortsman et al.: Model soups: averaging weights of multiple fine-tuned models improves accuracy without "
    "increasing inference time. ICML 2022. https://arxiv.org/abs/2203.05482",
    "task_arithmetic": "Ilharco et al.: Editing Models with Task Arithmetic. ICLR 2023. "
    "https://arxiv.org/abs/2212.04089",
    "ties": "Yadav, Tam, Choshen, Raffel and Bansal: TIES-Merging: Resolving Interference When Merging Models. "
    "NeurIPS 2023. https://arxiv.org/abs/2306.01708",
    "dare": "Yu, Yu, Yu, Huang and Li: Language Models are Super Mario: Absorbing Abilities from Homologous Models as "
    "a Free Lunch. ICML 2024. https://arxiv.org/abs/2311.03099",
}
"""Name of a method -> its paper."""


def cited(method: str) -> str | None:
    """The paper of a method by its name, versioned or not; None for a method of another package."""
    return METHODS.get(method.partition(".")[0])
