# Put this file into Modules/Remote of an OTB source tree, and configure with -DModule_OTBTorch=ON.
otb_fetch_module(OTBTorch
  "TorchScript models over images: change detection, time series, change likelihood."
  GIT_REPOSITORY ${OTBTorch_GIT_REPOSITORY}
  GIT_TAG main)
