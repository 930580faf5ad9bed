"""The recipe of sequence to sequence."""

from typing import Literal

from regard.models import RecurrentConfig, TransformerConfig
from regard.recipes.recipe import Recipe
from regard.recipes.sections import ModelSection, TextDataSection


class Seq2SeqModelSection(ModelSection):
    def config(self, **of_the_data: int) -> TransformerConfig | RecurrentConfig:
        config = super().config(**of_the_data)
        if not isinstance(config, TransformerConfig | RecurrentConfig):
            raise self.not_for("seq2seq", TransformerConfig, RecurrentConfig)
        return config


class Seq2SeqRecipe(Recipe):
    task: Literal["seq2seq"]
    model: Seq2SeqModelSection
    data: TextDataSection
