import LesionCore
import XCTest

@testable import Lesion

/// The device's crop, resize, engine and input checks against the desktop's.
final class GoldenTests: XCTestCase {
    func testTheDeviceAnswersAsTheDesktopDoes() throws {
        _ = try openClassifier()
    }

    func testAnEngineThatAnswersOtherwiseIsRefused() throws {
        let read = { (name: String) in try Data(contentsOf: asset(name)) }
        let contract = try JSONDecoder().decode(Contract.self, from: read("bundle.json"))
        let engine = try LiteRT(path: asset(contract.engine.file).path)
        let damaged = try Classifier(read: read) { input in
            let signals = try engine.infer(input)
            return (signals.probabilities.reversed(), signals.features, signals.logits)
        }
        XCTAssertThrowsError(try damaged.selfTest(decode: decode, sha256: sha256))
    }
}
