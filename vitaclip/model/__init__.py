"""What methods are built of: a frozen CLIP (``backbone``), its two towers with prompts, and weights
of every layout.
"""

import sys

# timm, which open_clip imports, imports wandb where it is installed. That takes seconds, and makes
# folders in the temporary directory that a killed process leaves. A module that is None cannot be
# imported, and timm goes on without it.
if "wandb" not in sys.modules:
    sys.modules["wandb"] = None  # type: ignore[assignment]
    import open_clip  # noqa: F401

    del sys.modules["wandb"]
