"""A study: several model variants, each trained with several seeds by one recipe, and the report on them."""
