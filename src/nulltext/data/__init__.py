"""Pictures as people have them: decoded, turned, cut, described; masks and metadata files beside them."""
