# cmake -D PRUNE=file -D LEARN=file -D OUT=folder -P this file: fetches the data if need be, prunes
# heads and filters of the model, and learns which of its tokens can be dropped.
include("${CMAKE_CURRENT_LIST_DIR}/data.cmake")
execute_process(COMMAND python3 "${CMAKE_CURRENT_LIST_DIR}/fetch_data.py" --into "${PARE_CACHE}" ${PARE_FETCHED} RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "the demo needs this data; with PARE_MODEL_DIR=folder it takes a model of yours")
endif()
# Relative names read better in what the program prints.
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH top)
cmake_path(RELATIVE_PATH OUT BASE_DIRECTORY "${top}")
function(run program)
  execute_process(COMMAND "${program}" --model "${PARE_MODEL}" --evaluate "${PARE_CACHE}/lee/pairs.tsv" ${ARGN}
    WORKING_DIRECTORY "${top}" RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${program} ended with ${result}")
  endif()
endfunction()

run("${PRUNE}" --calibrate "${PARE_CACHE}/lee/documents.txt" --out "${OUT}/model" --json "${OUT}/report.json")
run("${LEARN}" --train "${PARE_CACHE}/lee/documents.txt" --out "${OUT}/tokens" --json "${OUT}/tokens.json" --html "${OUT}/tokens.html")
