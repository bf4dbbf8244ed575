/** Whether a picture is good enough, and like the training images, as in input_checks.py. */
package com.example.lesion.core

import kotlin.math.*

/** An engine's outputs; [features] and [logits] are empty for an engine without input checks. */
class Signals(val probabilities: FloatArray, val features: FloatArray, val logits: FloatArray)

/** [status] is one of [STATUSES]; [measures] are those of the picture, and its "domain" score. */
class Verdict(val status: String, val reasons: List<String>, val measures: Map<String, Double>)

val STATUSES = listOf("accepted", "poor_quality", "out_of_domain")
private const val BRIGHT = 250
private const val DARK = 5
private const val STRANGE =
    "the picture is unlike the dermoscopic images that the network was trained on"
private val REASONS = listOf(
    Triple("sharpness", "low", "the picture is blurred"),
    Triple("brightness", "low", "the picture is too dark"),
    Triple("brightness", "high", "the picture is too bright"),
    Triple("overexposed", "high", "too much of the picture is overexposed"),
    Triple("underexposed", "high", "too much of the picture is black"),
    Triple("shorter_side", "low", "the picture has too few pixels"),
)

/** Judges the engine's [input], RGB bytes [S, S, 3] made of a picture with [shorterSide] pixels. */
fun checkInput(checks: InputChecks, input: ByteArray, shorterSide: Int, signals: Signals): Verdict {
    val measures = measureQuality(input) + ("shorter_side" to shorterSide.toDouble())
    val faults = REASONS.filter { (name, side, _) ->
        val value = measures.getValue(name)
        val bound = checks.bound(name, side)
        bound != null && if (side == "low") value < bound else value > bound
    }.map { it.third }
    val domain = scoreDomain(checks, signals)
    val all = measures + ("domain" to domain)
    return when {
        faults.isNotEmpty() -> Verdict(STATUSES[1], faults, all)
        domain <= checks.threshold -> Verdict(STATUSES[0], faults, all)
        else -> Verdict(STATUSES[2], listOf(STRANGE), all) // also where the score is not a number
    }
}

private fun measureQuality(input: ByteArray): Map<String, Double> {
    val size = sqrt(input.size / 3.0).toInt()
    val luma = IntArray(size * size) {
        val (r, g, b) = List(3) { c -> input[3 * it + c].toInt() and 255 }
        (77 * r + 150 * g + 29 * b) shr 8
    }
    var total = 0L
    var squares = 0L
    for (y in 1 until size - 1) {
        for (x in 1 until size - 1) {
            val at = y * size + x
            val around = luma[at - size] + luma[at + size] + luma[at - 1] + luma[at + 1]
            val laplacian = (around - 4 * luma[at]).toLong()
            total += laplacian
            squares += laplacian * laplacian
        }
    }
    val n = ((size - 2) * (size - 2)).toDouble()
    return mapOf(
        "sharpness" to squares / n - (total / n) * (total / n),
        "brightness" to luma.sumOf { it.toLong() }.toDouble() / luma.size,
        "overexposed" to luma.count { it >= BRIGHT }.toDouble() / luma.size,
        "underexposed" to luma.count { it <= DARK }.toDouble() / luma.size,
    )
}

/** Returns how unlike the training images a picture is; larger is stranger. */
private fun scoreDomain(checks: InputChecks, signals: Signals): Double = when (checks.score) {
    "probability" -> -signals.probabilities.max().toDouble()
    "energy" -> {
        val peak = signals.logits.max().toDouble()
        -(peak + ln(signals.logits.sumOf { exp(it - peak) }))
    }
    "distance" -> findDistance(checks, signals.features)
    else -> error("The domain score is ${checks.score}; expected probability, energy or distance.")
}

/** Returns the smallest squared Mahalanobis distance to the mean of a class. */
private fun findDistance(checks: InputChecks, features: FloatArray): Double {
    val means = checks.array("means")
    val axes = checks.array("axes")
    val variances = checks.array("variances")
    val width = features.size
    val length = sqrt(features.sumOf { it.toDouble() * it })
    val unit = if (checks.unitLength) max(length, java.lang.Float.MIN_NORMAL.toDouble()) else 1.0
    var nearest = Double.POSITIVE_INFINITY
    for (first in means.indices step width) {
        val difference = DoubleArray(width) { features[it] / unit - means[first + it] }
        var rest = difference.sumOf { it * it }
        var distance = 0.0
        for (axis in variances.indices) {
            val along = (0 until width).sumOf { difference[it] * axes[axis * width + it] }
            rest -= along * along
            distance += along * along / variances[axis]
        }
        nearest = minOf(nearest, distance + rest / checks.restVariance) // not a number stays so
    }
    return nearest
}
