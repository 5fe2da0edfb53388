"""Makes model bundles: the same networks as inference/, trained on phantoms."""
