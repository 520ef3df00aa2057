"""What `make lab` sets: a chapter that was opened and saved, unchanged, is the same file."""

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from book.notebooks import tidy


class TidyManager(AsyncLargeFileManager):
    """Files as Jupyter stores them, without what it adds about the kernel and about what was folded.

    Not its hook for this, which warns of itself at every start.
    """

    async def save(self, model, path=""):
        """Store the notebook or file ``model`` at ``path``."""
        if model.get("type") == "notebook" and model.get("content"):
            tidy(model["content"])
        return await super().save(model, path)


get_config().ServerApp.contents_manager_class = TidyManager  # noqa: F821, Jupyter's own
