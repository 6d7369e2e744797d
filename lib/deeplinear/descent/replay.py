"""A step that is taken again and again: plainly, or replayed as CUDA graphs."""

import torch

GRAPHS = ("cuda",)  # kinds of devices on which steps are replayed as graphs
LONGEST = 5  # a graph holds at most 2^LONGEST steps


class Replay:
    """Takes a step on ``device`` any number of times; where ``capturable``, from graphs of 1, 2, 4, ... steps.

    The step must change the same tensors in place at every call and ask nothing of the host; a change of shapes needs a
    new object.
    """

    def __init__(self, device, capturable):
        self.device, self.capturable = device, capturable and device.type in GRAPHS
        self.graphs = {}

    def __call__(self, step, times):
        while self.capturable and times:
            size = 1 << min(times.bit_length() - 1, LONGEST)
            self._replay(step, size)
            times -= size
        for _ in range(times):
            step()

    def _replay(self, step, times):
        """The first steps are run, the next ones captured."""
        if not self.graphs:
            for _ in range(times):
                step()
            self.graphs[0] = None
            return
        with torch.cuda.device(self.device):
            if times not in self.graphs:
                self.graphs[times] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graphs[times], stream=torch.cuda.Stream(self.device)):
                    for _ in range(times):
                        step()
            self.graphs[times].replay()
