"""The state and the graph that all steps share, for both generations."""

import os

import dask


class StepContainer:
    """Constructors of steps in their order, each with the group it belongs to."""

    def __init__(self, name=""):
        self.name = name
        self.container = []

    def append(self, step, step_group=""):
        assert step not in self.container
        step.step_group = step_group
        self.container.append(step)

    def __getitem__(self, index):
        return self.container[index]

    def __len__(self):
        return len(self.container)


class Task:
    """One call: ``task_parameters["f"]`` with the other parameters."""

    names = set()

    def __init__(self, task_name, log_dir, execution_mode, task_parameters, task_resources):
        assert not set(" -") & set(task_name), task_name
        if task_name in self.names:
            raise ValueError(f"a task {task_name} exists already")
        self.names.add(task_name)
        self.task_name = task_name
        self.log_dir = log_dir
        self.execution_mode = execution_mode
        self.parameters = dict(task_parameters)
        self.resources = dict(task_resources)


class Graph:
    """Class state is shared by all steps of a run, as iota2's is."""

    tiles = []
    spatial_models_distribution = {}
    spatial_models_distribution_no_sub_splits = {}
    step_container = []
    tasks_graph = {"first_task": None, "tile_tasks": {}, "region_tasks": {}, "tile_tasks_model": {}}

    def __init__(self, output_path, resources):
        self.resources = resources
        self.log_dir = os.path.join(output_path, "logs")
        self.log_step_dir = os.path.join(self.log_dir, type(self).__name__)
        self.step_tasks = []
        self.step_container.append(self)

    @classmethod
    def reset(cls):
        Task.names.clear()
        cls.step_container.clear()
        cls.tasks_graph.clear()
        cls.tasks_graph.update(first_task=None, tile_tasks={}, region_tasks={}, tile_tasks_model={})

    @classmethod
    def set_models_spatial_information(cls, tiles, spatial_models_distribution):
        Graph.tiles = tiles
        Graph.spatial_models_distribution = spatial_models_distribution
        parts = {}
        for model, meta in spatial_models_distribution.items():
            region = model.split("f")[0]
            parts.setdefault(region, {**meta, "nb_sub_model": 0})["nb_sub_model"] += 1
        Graph.spatial_models_distribution_no_sub_splits = parts

    def task_launcher(self, *dependencies, task_kwargs=None, execution_mode="local", log_dir=None):
        if task_kwargs:
            assert execution_mode == "local", "a cluster of PBS is not here"
            os.makedirs(log_dir, exist_ok=True)
            call = dict(task_kwargs)
            call.pop("f")(**call)
        return True

    def add_task_to_i2_processing_graph(self, task, task_group, task_sub_group=None, task_dep_dico=None):
        waits = []
        if len(self.step_container) > 1:  # the first step of a run waits for nothing
            waits = [self.tasks_graph[group][name] for group, names in task_dep_dico.items() for name in names]
        made = dask.delayed(self.task_launcher)(
            *waits, task_kwargs=task.parameters, execution_mode=task.execution_mode, log_dir=task.log_dir
        )
        self.tasks_graph.setdefault(task_group, {})[task_sub_group] = made
        self.step_tasks.append(made)

    @classmethod
    def get_exec_graph(cls):
        return dask.delayed(cls.task_launcher)(*cls.step_container[-1].step_tasks)
