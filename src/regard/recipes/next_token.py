"""The recipe of next-token prediction."""

from typing import Literal

from regard.models import LanguageModelConfig
from regard.recipes.recipe import Recipe
from regard.recipes.sections import ModelSection, TextDataSection


class NextTokenModelSection(ModelSection):
    def config(self, **of_the_data: int) -> LanguageModelConfig:
        config = super().config(**of_the_data)
        if not isinstance(config, LanguageModelConfig):
            raise self.not_for("next-token", LanguageModelConfig)
        return config


class NextTokenRecipe(Recipe):
    task: Literal["next-token"]
    model: NextTokenModelSection
    data: TextDataSection
