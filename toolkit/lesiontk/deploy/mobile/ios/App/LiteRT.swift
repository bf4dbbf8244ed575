import CryptoKit
import Foundation
import ImageIO
import LesionCore
import TensorFlowLite

/// An engine on LiteRT; one queue at a time uses it. Normalization is inside the engine.
final class LiteRT {
    private let interpreter: Interpreter

    init(path: String) throws {
        var options = Interpreter.Options()
        options.threadCount = 2
        interpreter = try Interpreter(modelPath: path, options: options)
        try interpreter.allocateTensors()
    }

    /// Returns the outputs for RGB bytes [S, S, 3].
    func infer(_ input: [UInt8]) throws -> Signals {
        try interpreter.copy(Data(input), toInputAt: 0)
        try interpreter.invoke()
        let outputs = try (0..<interpreter.outputTensorCount).map {
            floatsOf(try interpreter.output(at: $0).data)
        }
        return outputs.count < 3 ? (outputs[0], [], []) : (outputs[0], outputs[1], outputs[2])
    }
}

/// A file of the bundle in the app's folder Assets.
func asset(_ name: String) -> URL {
    Bundle.main.bundleURL.appending(path: "Assets").appending(path: name)
}

/// Opens the bundle in the app's assets. Throws an error unless the self-test passes.
func openClassifier() throws -> Classifier {
    let read = { (name: String) in try Data(contentsOf: asset(name)) }
    let contract = try JSONDecoder().decode(Contract.self, from: read("bundle.json"))
    let engine = try LiteRT(path: asset(contract.engine.file).path)
    let classifier = try Classifier(read: read, infer: engine.infer)
    try classifier.selfTest(decode: decode, sha256: sha256)
    return classifier
}

func sha256(_ bytes: [UInt8]) -> String {
    SHA256.hash(data: bytes).map { String(format: "%02x", $0) }.joined()
}

/// Returns the pixels of a PNG or JPEG file, without color management.
func decode(_ file: Data) throws -> Pixels {
    guard let source = CGImageSourceCreateWithData(file as CFData, nil),
        let image = CGImageSourceCreateImageAtIndex(source, 0, nil)
    else { throw Failure("A picture of \(file.count) bytes cannot be decoded.") }
    let (width, height) = (image.width, image.height)
    var bytes = [UInt8](repeating: 0, count: 4 * width * height)
    let drawn = bytes.withUnsafeMutableBytes { buffer -> Bool in
        guard let context = CGContext(
            data: buffer.baseAddress, width: width, height: height, bitsPerComponent: 8,
            bytesPerRow: 4 * width, space: image.colorSpace ?? CGColorSpaceCreateDeviceRGB(),
            bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        else { return false }
        context.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
        return true
    }
    guard drawn else { throw Failure("A picture of \(width) x \(height) pixels cannot be drawn.") }
    return Pixels(width: width, height: height, rowBytes: 4 * width, bytes: bytes)
}
