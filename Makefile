# One command each, on a bare Debian 12: `make demo`, `make test`. Nothing is installed or built twice.
#
#   make           build into build/            make demo     run the main job on the demo scene, into demo/
#   make deps      install missing packages     make test     all tests
#   make package   build/package/otbtorch_*.deb make bench    timings and memory, into build/bench/
#   make install   PREFIX=/usr/local            make clean    remove what was built
#   make hosts     install QGIS, Monteverdi and dask, for the tests
#   make format    clang-format
#   make screenshot                             of QGIS, otbgui and Monteverdi with the maps of the demo, into doc/images

MAKEFLAGS += --no-print-directory

PREFIX ?= /usr/local
JOBS   ?= $(shell nproc)
PYTHON ?= /usr/bin/python3

export PYTHONPATH := $(CURDIR)/python$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: all deps hosts configure build package demo screenshot test core-test install bench format clean
all: build

deps:
	@cmake/install-packages.sh

# QGIS, Monteverdi and dask: `make test` runs the applications in them.
hosts:
	@cmake/install-packages.sh hosts

# Configured again only when a CMake file is newer; make in build/ sees to the rest. In the layout of the package; `make install` changes it.
build/Makefile: CMakeLists.txt CMakePresets.json otb-module.cmake
	@cmake/install-packages.sh
	cmake --preset module -DCMAKE_INSTALL_PREFIX=/usr -DOTBTorch_PYTHON=$(PYTHON)

configure: build/Makefile

build: deps build/Makefile
	@cmake --build build --parallel $(JOBS)

# A program that fails ends the demonstration, though its log goes through tee.
demo: SHELL := /bin/bash
demo: .SHELLFLAGS := -o pipefail -c
demo: build
	@$(PYTHON) -m otbtorch.recipes.demo_scene --date1 data/scene/date1.tif --out demo
	build/bin/otbcli_SiameseCD -in1 data/scene/date1.tif -in2 demo/date2.tif -model data/models/demo-l7.pt \
	  -out demo/change.tif -proba demo/probability.tif -objects demo/objects.gpkg -minsize 4 -outxml demo/change.xml | tee demo/change.log
	build/bin/otbcli_ChangeEvaluation -mode score -in demo/probability.tif -ref demo/changes.tif -probability 1 -thr 0.55 -block 32 \
	  -errors demo/errors.tif -out demo/evaluation.json
	@$(PYTHON) -m otbtorch report --run demo/change.xml --log demo/change.log --evaluation demo/evaluation.json --bands 4 3 2 \
	  --title "Changes of the demonstration scene" --subtitle "Landsat 7, Olinda (Brazil), and a second date simulated from it" \
	  --out demo/report.html --qgs demo/change.qgs
	@$(PYTHON) -m otbtorch.demo report --date1 data/scene/date1.tif --date2 demo/date2.tif --truth demo/changes.tif \
	  --proba demo/probability.tif --mask demo/change.tif --out demo/demo.png
	@$(PYTHON) -m otbtorch.recipes.demo_series --out demo/series
	build/bin/otbcli_TimeSeriesClassify -in demo/series/s2.tif -dates demo/series/s2_dates.txt -maskl demo/series/s2_mask.tif \
	  -model data/models/sits-s2-crops.pt -out demo/labels.tif -confmap demo/confidence.tif -nvalid demo/valid-dates.tif \
	  -outxml demo/labels.xml | tee demo/labels.log
	@$(PYTHON) -m otbtorch report --run demo/labels.xml --log demo/labels.log --title "Crops of a simulated season" --out demo/report-series.html
	@$(PYTHON) -m otbtorch.demo_series --series demo/series --model data/models/sits-s2-crops.pt --labels demo/labels.tif \
	  --confidence demo/confidence.tif --valid-dates demo/valid-dates.tif --out demo/series.png
	build/bin/otbcli_ChangeLikelihood -in1 data/scene/date1.tif -in2 demo/date2.tif -smooth 1 \
	  -out demo/likelihood.tif -change demo/likelihood-change.tif -objects demo/likelihood-objects.gpkg -minsize 4 \
	  -outxml demo/likelihood.xml | tee demo/likelihood.log
	@$(PYTHON) -m otbtorch report --run demo/likelihood.xml --log demo/likelihood.log --bands 4 3 2 --title "Changes without labels" \
	  --out demo/report-likelihood.html
	@$(PYTHON) -m otbtorch.demo_likelihood --date1 data/scene/date1.tif --truth demo/changes.tif --proba demo/probability.tif \
	  --mask demo/change.tif --score demo/likelihood.tif --change demo/likelihood-change.tif --out demo/likelihood.png
	@echo
	@echo "Look at demo/demo.png: both dates, the change probability, and the map against the known changes."
	@echo "Look at demo/series.png: a season of Sentinel-2, the label map made from it, its errors, confidence, number of valid dates."
	@echo "Look at demo/likelihood.png: change without labels or network, beside the network's, against the known changes."
	@echo "Look at demo/report.html: the report of the first run, its verdict, maps, errors, curves, objects, settings, model;"
	@echo "also demo/report-series.html and demo/report-likelihood.html. demo/change.qgs opens the first run in QGIS."
	@echo "demo/change.tif (0 = no change, 1 = change, 255 = no data), demo/probability.tif, demo/objects.gpkg and demo/labels.tif"
	@echo "open in QGIS as maps, with their colours and names."

screenshot: hosts demo
	$(PYTHON) -m otbtorch.demo_qgis --image demo/date2.tif --map demo/change.tif --probability demo/probability.tif \
	  --objects demo/objects.gpkg --out doc/images/qgis.png
	$(PYTHON) -m otbtorch.demo_gui --date1 data/scene/date1.tif --date2 demo/date2.tif --model data/models/demo-l7.pt \
	  --otbgui doc/images/otbgui.png --monteverdi doc/images/monteverdi.png

# The whole module first, then core once more by itself: no OTB, ITK, GDAL or torch.
test: hosts build
	ctest --test-dir build --parallel $(JOBS) --output-on-failure --no-tests=error
	@$(MAKE) --no-print-directory core-test

core-test:
	@cmake --preset core
	@cmake --build build-core --parallel $(JOBS)
	ctest --test-dir build-core --parallel $(JOBS) --output-on-failure --no-tests=error -L core
	@! grep -E '^(Torch|OTB|ITK|GDAL)_DIR:' build-core/CMakeCache.txt

# Anywhere, without being root: make install PREFIX=$$HOME/otbtorch; then . $$HOME/otbtorch/bin/otbtorch-env.sh
install: build
	cmake -S . -B build -DCMAKE_INSTALL_PREFIX=$(abspath $(PREFIX)) > /dev/null
	@cmake --build build --parallel $(JOBS)
	cmake --install build

package: deps
	@cmake/install-packages.sh package
	cmake --preset module -DCMAKE_INSTALL_PREFIX=/usr -DOTBTorch_PYTHON=$(PYTHON) > /dev/null
	@cmake --build build --parallel $(JOBS)
	cd build && cpack --config CPackConfig.cmake
	@ls -l build/package/*.deb

bench: build
	@cmake --build build --target otbdlBareModel otbdlStartup
	$(PYTHON) bench/startup.py --build build
	$(PYTHON) bench/run.py --build build
	$(PYTHON) bench/sits/run.py --build build

format:
	clang-format -i include/*.h src/*/*.h src/*/*.cxx app/*.h app/*.cxx test/*/*.cxx

clean:
	rm -rf build build-core build-runtime demo
