/** What the app reads of bundle.json and input_checks.json: nothing of an engine is in the code. */
package com.example.lesion.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlinx.serialization.json.*

/** A frozen decision: positive from [threshold] of the summed probability of [positive]. */
class OperatingPoint(val threshold: Double, val positive: List<String>)

/** Returns the value at a path of keys, or null where the document has null. */
private fun JsonElement.find(vararg path: String): JsonElement? =
    path.fold(this) { part, key ->
        part.jsonObject[key] ?: error("The document has no ${path.joinToString(".")}.")
    }.takeUnless { it is JsonNull }

private fun JsonElement.get(vararg path: String) =
    find(*path) ?: error("${path.joinToString(".")} is null; expected a value.")

private fun JsonElement.text(vararg path: String) = get(*path).jsonPrimitive.content
private fun JsonElement.number(vararg path: String) = get(*path).jsonPrimitive.double
private fun JsonElement.texts(vararg path: String) =
    get(*path).jsonArray.map { it.jsonPrimitive.content }

class Contract(json: String) {
    private val document = Json.parseToJsonElement(json)
    val name = document.text("name")
    val notice = document.text("notice")
    val engineFile = document.text("engine", "file")
    val labels = document.texts("labels")
    val imageSize = document.number("preprocessing", "image_size").toInt()
    val cropMode = document.text("preprocessing", "crop_mode")
    val operatingPoint = document.find("operating_point")?.let {
        OperatingPoint(it.number("threshold"), it.texts("positive"))
    }
    val hasInputChecks = document.find("input_checks") != null
    val minAgreement = document.number("golden", "min_agreement")
    val maxMeanDrift = document.number("golden", "max_mean_drift")
    val pictures = document.get("golden", "pictures").jsonObject
        .mapValues { it.value.jsonPrimitive.content }
    val goldenImages = document.text("mobile", "golden_images")
    val goldenProbabilities = document.text("mobile", "golden_probabilities")
    val goldenStatuses = document.find("mobile", "golden_statuses")?.jsonPrimitive?.content
}

/** The fitted input checks: bounds of the picture's quality, and the score of its strangeness. */
class InputChecks(json: String, values: ByteArray) {
    private val document = Json.parseToJsonElement(json)
    private val domain = document.get("domain")
    val score = domain.text("score")
    val threshold = domain.number("threshold")
    val unitLength = domain.jsonObject["unit_length"]?.jsonPrimitive?.boolean ?: false
    val restVariance = domain.jsonObject["rest_variance"]?.jsonPrimitive?.double ?: 1.0
    private val arrays: Map<String, FloatArray>

    init {
        val floats = floatsOf(values)
        var at = 0
        arrays = domain.get("arrays").jsonObject.mapValues { (_, shape) ->
            val size = shape.jsonArray.map { it.jsonPrimitive.int }.reduce(Int::times)
            floats.copyOfRange(at, at + size).also { at += size }
        }
    }

    /** Returns the last accepted value of a measure, if it has one on that [side]: low or high. */
    fun bound(measure: String, side: String): Double? =
        document.get("quality").jsonObject[measure]?.jsonObject?.get(side)?.jsonPrimitive?.double

    fun array(name: String) = arrays[name] ?: error("input_checks.json has no array $name.")
}

/** Returns little-endian floats of a file. */
fun floatsOf(bytes: ByteArray): FloatArray {
    val buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return FloatArray(buffer.remaining()).also { buffer.get(it) }
}
