"""ONNX Runtime: conversion, quantization and execution of ONNX engines."""
