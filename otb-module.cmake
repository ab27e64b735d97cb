set(DOCUMENTATION "Streaming applications that run TorchScript models over images: change detection, time series, change likelihood.")

otb_module(OTBTorch
  DEPENDS
    OTBApplicationEngine
    OTBCommon
    OTBExtendedFilename
    OTBGdalAdapters
    OTBImageBase
    OTBImageIO
    OTBImageList
    OTBIOGDAL
    OTBITK
    OTBMetadata
    OTBStreaming
    OTBGDAL
    OTBBoost
  TEST_DEPENDS
    OTBTestKernel
    OTBCommandLine
  DESCRIPTION
    "${DOCUMENTATION}")
