"""The page of ``eexit report``: one HTML file that asks nothing of anybody else."""
