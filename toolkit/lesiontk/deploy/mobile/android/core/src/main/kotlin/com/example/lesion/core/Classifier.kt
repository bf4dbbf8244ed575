/** From a picture's pixels to an answer or a refusal, and the self-test before the first one. */
package com.example.lesion.core

import java.security.MessageDigest
import kotlin.math.abs

/** The [decision] on a picture. A [refusal] of its input hides it. */
class Answer(val decision: Decision, val refusal: Verdict?)

/** The bundle whose files [read] reads, with the engine behind [infer]. */
class Classifier(
    private val read: (String) -> ByteArray,
    private val infer: (ByteArray) -> Signals,
) {
    val contract = Contract(read("bundle.json").decodeToString())
    private val checks = if (contract.hasInputChecks) {
        InputChecks(read("input_checks.json").decodeToString(), read("input_checks.bin"))
    } else {
        null
    }

    fun classify(pixels: Pixels): Answer {
        val input = cropAndResize(pixels, contract.imageSize, contract.cropMode)
        val signals = runEngine(input)
        val verdict = judge(input, minOf(pixels.width, pixels.height), signals)
        val accepted = verdict == null || verdict.status == STATUSES[0]
        return Answer(decide(signals.probabilities, contract), verdict.takeUnless { accepted })
    }

    private fun runEngine(input: ByteArray): Signals {
        val signals = infer(input)
        val values = signals.probabilities
        check(values.size == contract.labels.size && areProbabilities(values)) {
            "The engine returns ${values.toList()}; expected ${contract.labels.size} probabilities."
        }
        return signals
    }

    private fun judge(input: ByteArray, shorterSide: Int, signals: Signals) =
        checks?.let { checkInput(it, input, shorterSide, signals) }

    /**
     * Throws an error unless this device prepares the golden pictures, which [decode] decodes, to
     * the same bytes and answers the golden images as the desktop engine does.
     */
    fun selfTest(decode: (ByteArray) -> Pixels) {
        for ((name, expected) in contract.pictures) {
            val input = cropAndResize(decode(read(name)), contract.imageSize, contract.cropMode)
            val digest = MessageDigest.getInstance("SHA-256").digest(input)
            val received = digest.joinToString("") { "%02x".format(it) }
            check(received == expected) { "$name is prepared to other bytes." }
        }
        val images = read(contract.goldenImages)
        val expected = floatsOf(read(contract.goldenProbabilities))
        val statuses = contract.goldenStatuses?.let(read)
        val classes = contract.labels.size
        val n = expected.size / classes
        var agreeing = 0
        var judged = 0
        var drift = 0.0
        for (at in 0 until n) {
            val bytes = images.size / n
            val input = images.copyOfRange(at * bytes, (at + 1) * bytes)
            val signals = runEngine(input)
            val wanted = expected.copyOfRange(at * classes, (at + 1) * classes)
            if (indexOfMax(signals.probabilities) == indexOfMax(wanted)) agreeing++
            for (i in wanted.indices) drift += abs(wanted[i] - signals.probabilities[i])
            val verdict = judge(input, contract.imageSize, signals)
            if (statuses == null || verdict?.status == STATUSES[statuses[at].toInt()]) judged++
        }
        drift /= expected.size
        val agree = minOf(agreeing, judged) >= contract.minAgreement * n
        check(agree && drift <= contract.maxMeanDrift) {
            "Of $n golden images $agreeing have the expected class, $judged the expected status; " +
                "the mean difference of a probability is $drift. This device computes otherwise."
        }
    }
}
