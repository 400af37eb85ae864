"""Tools that tests of several rooms share: environments, a JupyterLab to drive."""
