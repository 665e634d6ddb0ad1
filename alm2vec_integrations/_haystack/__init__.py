"""What the Haystack components have in common. Their classes are in `haystack_integrations`, where YAML names them."""
