"""A study: several model variants, each trained with several seeds by one recipe, ending in the report."""
