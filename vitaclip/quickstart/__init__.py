"""The quickstart's world of rendered clips, and the tiny CLIP that was trained on its pictures."""
