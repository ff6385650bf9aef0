# cmake -D PROGRAM=file -D OUT=folder -P this file: fetches the data if need be and prunes the model.
include("${CMAKE_CURRENT_LIST_DIR}/data.cmake")
execute_process(COMMAND python3 "${CMAKE_CURRENT_LIST_DIR}/fetch_data.py" --into "${PARE_CACHE}" ${PARE_FETCHED} RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "the demo needs this data; with PARE_MODEL_DIR=folder it takes a model of yours")
endif()
# Relative names read better in what the program prints.
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH top)
cmake_path(RELATIVE_PATH OUT BASE_DIRECTORY "${top}")
execute_process(
  COMMAND "${PROGRAM}" --model "${PARE_MODEL}"
    --calibrate "${PARE_CACHE}/lee/documents.txt" --evaluate "${PARE_CACHE}/lee/pairs.tsv"
    --out "${OUT}/model" --json "${OUT}/report.json"
  WORKING_DIRECTORY "${top}"
  RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${PROGRAM} ended with ${result}")
endif()
