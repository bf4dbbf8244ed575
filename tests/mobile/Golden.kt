/** Runs the app's library on the cases in a folder, and prints what it returns as JSON. */

import com.example.lesion.core.*
import com.example.lesion.describe
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import kotlinx.serialization.json.*

fun main(arguments: Array<String>) {
    val folder = File(arguments[0])
    val cases = Json.parseToJsonElement(File(folder, "cases.json").readText()).jsonObject
    val answers = cases.mapValues { (kind, entries) ->
        JsonArray(entries.jsonArray.map { run(kind, it.jsonObject, folder) })
    }
    println(JsonObject(answers))
}

fun run(kind: String, case: JsonObject, folder: File): JsonElement {
    fun text(name: String) = case.getValue(name).jsonPrimitive.content
    fun number(name: String) = case.getValue(name).jsonPrimitive.int
    fun file(name: String) = File(folder, text(name)).readBytes()
    return when (kind) {
        "resize" -> {
            val pixels = Pixels(number("width"), number("height"), number("row_bytes"), file("file"))
            JsonPrimitive(sha256(cropAndResize(pixels, number("image_size"), text("crop_mode"))))
        }
        "decisions" -> {
            val contract = Contract(case.getValue("contract").toString())
            val decision = decide(floatsOf(file("values")), contract)
            val shown = describe(Answer(decision, null), contract.operatingPoint)
            JsonObject(
                mapOf(
                    "label" to JsonPrimitive(decision.label),
                    "score" to JsonPrimitive(decision.score),
                    "positive" to JsonPrimitive(decision.positive),
                    "shown" to JsonPrimitive(shown),
                ),
            )
        }
        "checks" -> {
            val checks = InputChecks(file("document").decodeToString(), file("arrays"))
            val signals = signalsOf(file("signals"), number("classes"))
            val verdict = checkInput(checks, file("input"), number("shorter_side"), signals)
            JsonObject(
                mapOf(
                    "status" to JsonPrimitive(verdict.status),
                    "reasons" to JsonArray(verdict.reasons.map(::JsonPrimitive)),
                    "measures" to JsonObject(verdict.measures.mapValues { JsonPrimitive("${it.value}") }),
                ),
            )
        }
        "self_tests" -> JsonPrimitive(selfTest(File(folder, text("folder")), number("classes")))
        "answers" -> {
            val assets = File(folder, text("folder"))
            val outputs = signalsOf(file("signals"), number("classes"))
            val classifier = Classifier({ File(assets, it).readBytes() }) { outputs }
            val pixels = Pixels(number("width"), number("height"), number("row_bytes"), file("file"))
            JsonPrimitive(describe(classifier.classify(pixels), classifier.contract.operatingPoint))
        }
        else -> error("no case of the kind $kind")
    }
}

/** Returns why the self-test of the assets in a folder fails, or null; its outputs are recorded. */
fun selfTest(assets: File, classes: Int): String? {
    val outputs = File(assets, "signals.f32").readBytes()
    var at = 0
    val classifier = Classifier({ File(assets, it).readBytes() }) { input ->
        val images = File(assets, "golden_images.u8").length().toInt() / input.size
        val size = outputs.size / images
        signalsOf(outputs.copyOfRange(at * size, ++at * size), classes)
    }
    return try {
        classifier.selfTest(::decode)
        null
    } catch (error: IllegalStateException) {
        error.message
    }
}

/** The phone's decoder stands here: the pictures are kept as width, height and RGBA. */
fun decode(file: ByteArray): Pixels {
    val header = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN)
    val (width, height) = List(2) { header.getInt() }
    return Pixels(width, height, 4 * width, file.copyOfRange(8, file.size))
}

/** Reads an image's outputs: probabilities, features, logits; or probabilities alone. */
fun signalsOf(bytes: ByteArray, classes: Int): Signals {
    val values = floatsOf(bytes)
    if (values.size == classes) return Signals(values, FloatArray(0), FloatArray(0))
    val logits = values.size - classes
    return Signals(
        values.copyOf(classes),
        values.copyOfRange(classes, logits),
        values.copyOfRange(logits, values.size),
    )
}

fun sha256(bytes: ByteArray) =
    MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
